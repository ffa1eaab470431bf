//! Images from Dockerfiles, without a daemon.
