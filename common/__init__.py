"""What both images need and is no business of the portal's: how long to wait before a retry."""
