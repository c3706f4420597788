"""What makes the files that come with the packages; none of it is needed to use them."""
