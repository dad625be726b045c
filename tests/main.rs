//! Integration tests on real PostgreSQL clusters, one binary.
