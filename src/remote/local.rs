//! A local directory that poses as a host, for tests and for scripts run on this machine.
