"""Networks of a few bits: students distilled under quantisation, or quantisation levels learned by gradient descent.

"Model compression via distillation and quantization" (arXiv 1802.05668): a large teacher is compressed into a small
student whose weights take few values. Either the student computes with quantised weights while it learns in full
precision (`WeightQuantizer`), or its weights stay and the places of the levels are learned (`PointQuantizer`). The size
of the result is that of its Huffman code with everything counted, and `save_quantized` writes a file of that size.
"""

from throughline.discrete.quantization.distillation import allocate_levels, distillation_loss
from throughline.discrete.quantization.huffman import huffman_lengths
from throughline.discrete.quantization.quantizers import CompressedSize, PointQuantizer, WeightQuantizer
from throughline.discrete.quantization.rounding import nonuniform_quantize, quantile_points, uniform_quantize
from throughline.discrete.quantization.storage import load_quantized, save_quantized

__all__ = [
    "CompressedSize",
    "PointQuantizer",
    "WeightQuantizer",
    "allocate_levels",
    "distillation_loss",
    "huffman_lengths",
    "load_quantized",
    "nonuniform_quantize",
    "quantile_points",
    "save_quantized",
    "uniform_quantize",
]
