"""The stand-in portal: the status API that dispatcher and trainer call, with recorded calls and scripted faults."""
