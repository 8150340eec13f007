"""Grid: scheduling. For now only dispatch, the choice of an endpoint for one request; the plan comes later."""
