//! What NVML has and this simulator does not: placeholder until the list is drawn.
