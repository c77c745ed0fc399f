"""The demo: nine requests on a real queue, shown until they are settled, and compared with their expected outcomes."""
