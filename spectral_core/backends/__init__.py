"""FFT backends: one contract (:mod:`.base`), one file each, chosen by name (:mod:`.selection`)."""
