"""What both images need and is no portal matter: settings, redaction, back-off, times, text. Imports none of ours."""
