"""App: composition, the processes and their supervision. The only room that knows all others; it decides nothing."""
