//! The node agent migshared and its command line migshare.
