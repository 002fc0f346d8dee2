"""What a network learns from: manifests of cases, and the steps from a case's files to batches."""
