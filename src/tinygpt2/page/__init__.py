"""A model on a page: an HTML file that runs it, with nothing to install."""
