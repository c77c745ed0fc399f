"""The supervisors of a training on several nodes: node 0's leads, the others follow. Workers talk among themselves.

    follower                               leader
    ── Hello ──▶                                              who it is
                                ◀── Welcome ──                what is trained
    ── Doing, Doing, Ready ──▶                                it has the data, and a worker that is idle
                                ◀── Begin ──                  all are ready: a generation trains together
    ── Done, Failed or Leaving ──▶
                                ◀── Stopping, Over, Blamed or Published ──

A connection is for one generation. It ends, and everybody's worker with it, as soon as one node is lost, leaves or
fails; whoever stays connects anew. Which node's failure it was decides the leader (roster.py): that node's pod alone
ends, and Kubernetes replaces it or ends them all.

Nobody vouches for who connects. What comes is bounded, and is a message of this run or ends the connection; who may
connect at all is up to the network policy, as it is for torch's own sockets.
"""
