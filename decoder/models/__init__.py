"""What is fitted and saved in a bundle."""
