//! An SSH server with SFTP inside this process, on loopback, for `haul demo` and tests.
