"""Gateway: distribution. Serves the customers' API; `worker.run` is the way in. See the room's README."""
