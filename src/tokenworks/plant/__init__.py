"""Plant: production. Engines, sites, pools and endpoints, and the embedded engine as a process of its own."""
