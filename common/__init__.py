"""What both images need and is no business of the portal's: back-off, redaction, Retry-After. Imports none of ours."""
