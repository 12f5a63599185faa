//! A caching file-system sidecar that splits reads between cache and backend.
