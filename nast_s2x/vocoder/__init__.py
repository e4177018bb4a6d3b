"""Units -> waveform: the generator network of CodeHiFiGAN, its streaming synthesis and its training."""
