"""Level-triggered control of the Jobs: an informer (watcher and cache) feeds a work queue, the reconciler works on one
Job at a time, and the reporter sends its outcome to the portal.
"""
