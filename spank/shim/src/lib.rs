//! The C border of the SPANK plugin: spank_migshare.so.
