"""U-shaped networks: an encoder, a decoder, and skips between stages of one grid."""
