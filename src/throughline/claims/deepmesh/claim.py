"""The deepmesh claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.deepmesh.config import Config
from throughline.errors import ThroughlineError
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results, require
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FollowsTheSilhouette(Claim):
    """Refining a predicted shape through the differentiable iso-surface lowers its 3D Chamfer distance to the truth
    below the prediction itself and below refinement of a mesh of fixed topology, from one silhouette."""

    paper = "deepmesh"
    arms = (
        Arm(
            "mesh",
            "Moves every vertex of the predicted mesh until its silhouette fits, with neighbours held together.",
        ),
        Arm("raw", "Keeps the mesh of the code that an encoder guesses from the image."),
        Arm(
            "deepmesh",
            "Changes the guessed code until the silhouette of its field's surface fits, through the iso-surface.",
        ),
    )
    checks = (
        Beats("chamfer", "deepmesh", over="mesh", lower=True),
        Beats("chamfer", "deepmesh", over="raw", lower=True),
        Beats("iou", "deepmesh", over="raw"),
    )
    scales = {
        "smoke": Config(
            dataset="solids",
            members=2,
            samples=200,
            latent=4,
            hidden=(32, 32),
            skip=0,
            fit_steps=50,
            shapes=4,
            points=128,
            decoder_lr=1e-2,  # so that there is a surface after so few steps
            code_lr=1e-2,
            encoder_steps=10,
            channels=(4, 8),
            views=2,
            image=32,
            resolution=16,
            steps=5,
            scored=300,
        ),
        "laptop": Config(),
        "paper": Config(
            dataset="shapenet",
            tests=100,
            samples=8_192,
            latent=256,
            hidden=(512,) * 5,
            fit_steps=350_000,
            shapes=16,
            points=8_192,
            decoder_lr=5e-4,
            code_lr=1e-3,
            encoder_steps=100_000,
            encoder_lr=1e-3,
            channels=(16, 16, 32, 64, 128),
            views=24,
            image=224,
            resolution=256,
            steps=100,
            deepmesh_lr=5e-5,
            code_weight=0.0,
            scored=10_000,
            device="cuda",
        ),
    }
    seeds = {"smoke": 2, "laptop": 5, "paper": 3}
    accepts = ("meshes",)
    quotes = (
        Quote(
            "ShapeNet cars and chairs, Chamfer distance and normal consistency, refined against raw",
            "refined is better: see paper",
            "its digits could not be verified, so none is printed",
        ),
    )
    notes = (
        "Six closed meshes, and of each 16 relatives by a random twist and stretch: 96 shapes to learn from, 3,000 "
        "distances each. A decoder of 4 × 128 and codes of 16 numbers learn them, an encoder learns codes from 64² "
        "images (silhouette and normals); both are the same in every arm of a seed. Tested are six unseen relatives, "
        "one random view each. Refinement sees the silhouette alone: 40 steps of Adam on mean |S − S*|, sigma 1e-4, in "
        "both arms. chamfer is the mean squared distance between 5,000 points of either surface, both ways, times "
        "1,000, on shapes about 1.3 long; iou is that of silhouettes in the same view. euler is Euler's number of the "
        "mesh, and euler_error its distance to the truth's; step_seconds is a step of refinement. deepmesh extracts in "
        "a narrow band and looks everywhere in each tenth step. Rates and the smoothness were proposed by a prototype "
        "and looked at on seed 100 alone. At paper scale --set root=FOLDER holds ShapeNetCore v1 as meshes/CATEGORY/ID/"
        "model.obj with the renderings of DISN as image/CATEGORY/ID/easy and its lists as filelists; distances are "
        "learned with signs by winding numbers; --set category=03001627 takes chairs."
    )

    def prepare(self, config: Config) -> None:
        if config.skip > len(config.hidden):
            raise ThroughlineError(f"skip={config.skip}: the decoder has {len(config.hidden)} hidden layers")
        if config.dataset == "shapenet" and config.data is None:
            from throughline.claims.deepmesh.paper import check

            require("trimesh", extra="geometry")
            check(config)
            return
        from throughline.claims.deepmesh.data import bases

        bases(config)  # so that a fault of the files is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.deepmesh.measuring import measured

        return measured(arm, config, seed, log)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.deepmesh import figures as draw

        drawn = {
            "Each test shape of the first seed: input, what the arms make of it, and the truth": draw.shapes(results),
            "On the way, the shape of the first seed whose topology, or else silhouette, changes most": draw.strip(
                results
            ),
            "What the silhouette asks of the field at the first step: blue moves out, red in": draw.inflow(results),
            "The silhouette's error while refining, and every shape's distance to the truth": draw.course(results),
            "Chamfer distance × 10³, one line for each seed": paired_dots(results, "chamfer", label="chamfer × 10³"),
            "Silhouette IoU, one line for each seed": paired_dots(results, "iou", label="silhouette IoU"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
