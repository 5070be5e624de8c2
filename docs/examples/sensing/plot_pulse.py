"""
The pulse in a face
===================

With every beat the colour of skin changes by less than one grey level of a camera. Generated videos, whose pulse is
known, show how to find it, and what gets in its way.
"""

# %%
# Two clips: a calm face in steady light, and one that moves while the light drifts and flickers.
import matplotlib.pyplot as plt
import torch

from throughline.sensing.pulse import (
    bandpass,
    chrom,
    green,
    heart_rate,
    normalized_difference,
    pos,
    pulse_snr,
    pulse_spectrum,
    synthetic_pulse_video,
)

FS = 30.0
kinds = {"calm": {"motion": 0.1, "light": 0.1}, "moving, changing light": {"motion": 0.6, "light": 0.8}}
clips = {
    name: synthetic_pulse_video(
        1, frames=450, size=64, fs=FS, melanin=(0.2, 0.2), generator=torch.Generator().manual_seed(2), **options
    )
    for name, options in kinds.items()
}
figure, axes = plt.subplots(2, 5, figsize=(9, 3.8), layout="constrained")
for row, (name, clip) in zip(axes, clips.items(), strict=True):
    for axis, t in zip(row, range(0, 450, 90), strict=True):
        axis.imshow(clip["frames"][0, :, t].permute(1, 2, 0))
        axis.set(xticks=[], yticks=[], title=f"{t / FS:.0f} s")
    row[0].set_ylabel(name)

# %%
# Three methods read the mean colour of the face, and their pulse (colour) is laid over the truth (grey). The green
# trace shows the light; CHROM and POS remove what all colours have in common. CHROM's wave is upside down by its
# definition, and is turned here.
colours = {"green": "tab:green", "chrom": "tab:orange", "pos": "tab:blue"}
figure, axes = plt.subplots(3, 2, figsize=(9, 4.6), layout="constrained", sharex=True)
t = torch.arange(450) / FS
found = {}
for column, (name, clip) in enumerate(clips.items()):
    rgb = clip["frames"][0, :, :, 12:52, 18:46].mean((-1, -2)).T
    truth = bandpass(clip["pulse"][0], FS)
    for axis, (method, pulse) in zip(
        axes[:, column], {"green": green(rgb), "chrom": -chrom(rgb, FS), "pos": pos(rgb, FS)}.items(), strict=True
    ):
        found[name, method] = pulse
        bpm = heart_rate(pulse, FS)
        wave = bandpass(pulse, FS)
        axis.plot(t, truth / truth.std(), color="0.7", linewidth=1)
        axis.plot(t, wave / wave.std(), color=colours[method], linewidth=1.2)
        snr = pulse_snr(wave, FS, bpm)
        axis.set_title(f"{method}: {bpm:.0f} bpm at {snr:.1f} dB (true: {clip['bpm'][0]:.0f})", fontsize=9)
        axis.set(xlim=(3, 12), yticks=[])
for axis, name in zip(axes[-1], clips, strict=True):
    axis.set_xlabel(f"seconds, {name}")

# %%
# Their spectra. The rate is where the spectrum is highest; how far it stands out is the confidence.
rates = torch.arange(40.0, 180.0, 0.5)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for axis, (name, clip) in zip(axes, clips.items(), strict=True):
    axis.axvline(clip["bpm"][0], color="0.7")
    for method, colour in colours.items():
        axis.plot(rates, pulse_spectrum(bandpass(found[name, method], FS), FS, rates), color=colour, label=method)
    axis.set(title=name, xlabel="beats per minute", yticks=[])
axes[0].legend()

# %%
# What the network's second stem sees: normalised differences between frames. They do not depend on exposure or skin
# tone; what moves stands out at its edges, and what beats is hidden in the noise of single pixels.
figure, axes = plt.subplots(1, 2, figsize=(6, 2.8), layout="constrained")
for axis, (name, clip) in zip(axes, clips.items(), strict=True):
    change = normalized_difference(clip["frames"][0])[1, 100]
    axis.imshow(change, cmap="RdBu", vmin=-3, vmax=3)
    axis.set(xticks=[], yticks=[], title=name)
plt.show()
