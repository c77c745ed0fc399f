"""The two processes of a training: the supervisor, which has the credentials, and the worker, which does the work.

    supervisor (cli, run, transfer)                      worker (engine, tasks, plug-ins, a program)
    settings, storage, portal, lease, last words         folders, and this pipe: nothing else
             ── Check, Train, Follow, Validate, Predict, Stop ──▶
             ◀── Progress, Beat, Keep, Newest, the end ──

The worker runs what strangers have a hand in: their data, plug-ins, programs. The supervisor takes none of its words
for more than they are: messages.py says what may come and how long it may be.
"""
