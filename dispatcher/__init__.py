"""Reads training requests from a queue and launches one GPU Kubernetes Job for each.

read the queue → validate → check the status → mark Processing → launch → watch → report
└── intake ──┘   └───────────────────── launch ─────────────────────┘    └─ controller ─┘
"""
