"""From a folder of X-rays to grey squares and a split by patient."""
