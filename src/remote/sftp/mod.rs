//! haul's own SFTP version 3 client.
