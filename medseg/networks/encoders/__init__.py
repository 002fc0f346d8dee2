"""What networks over a backbone share: the encoders of other libraries, their weights, a residual one in 3D."""
