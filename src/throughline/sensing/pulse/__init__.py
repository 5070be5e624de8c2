"""Heart rate from face video: classical methods, a network with its loss, a reader of files and a generator of clips.

"Robust and Generalizable Heart Rate Estimation via Deep Learning for Remote Photoplethysmography in Complex Scenarios"
(arXiv 2507.07795). The skin's colour changes with every beat by well under one grey level: C(t) = I(t)·[u_c·c_0·(1 +
i(t)) + u_p·p(t) + s(t)] + noise, with light I, pulse p and shine s. `chrom` and `pos` find p in the mean colour of the
skin; `PulseNet` reads it from raw frames, and `PulseLoss` trains it. No official code is public: what the published
text leaves open is this project's choice, and marked as such.

Videos are ``(..., 3, T, H, W)``, colour traces ``(..., T, 3)``, pulses ``(..., T)``; rates are beats per minute.
"""

from throughline.sensing.pulse.filters import bandpass, detrend
from throughline.sensing.pulse.generator import synthetic_pulse_video
from throughline.sensing.pulse.loss import PulseLoss, neg_pearson, pulse_spectrum
from throughline.sensing.pulse.network import (
    DifferentialFrameFusion,
    PulseNet,
    TemporalShiftAttention,
    normalized_difference,
    temporal_shift,
)
from throughline.sensing.pulse.rate import heart_rate, pulse_snr
from throughline.sensing.pulse.traces import chrom, green, pos
from throughline.sensing.pulse.video import read_video

__all__ = [
    "DifferentialFrameFusion",
    "PulseLoss",
    "PulseNet",
    "TemporalShiftAttention",
    "bandpass",
    "chrom",
    "detrend",
    "green",
    "heart_rate",
    "neg_pearson",
    "normalized_difference",
    "pos",
    "pulse_snr",
    "pulse_spectrum",
    "read_video",
    "synthetic_pulse_video",
    "temporal_shift",
]
