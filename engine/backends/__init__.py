"""What can run the UNet."""
