"""From a message's text to a running Job: request, template, Job, and the crash-safe steps that create and resume it.

Only the launcher calls the cluster and the portal; the other files are pure.
"""
