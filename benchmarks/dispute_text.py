"""The words of docs/which-norm.md; names in brackets stand for tables."""

PARTS = (
    "# Which norm, and for what",
    """Published work disagrees on whether data-aware error predicts what a compressed network loses better than weight
error does (ICLR 2023: no; NeurIPS 2025: yes). `python benchmarks/dispute.py` measures it; this page is written from
its results by `benchmarks/dispute_page.py`. Three questions hide behind the one, and they have three answers:

1. *Of two candidates for one layer, which does less harm?* The error of the outputs tells (`inputs`, `curvature`: rank
   correlations of .83 to .97); the weight error tells less (.58 to .79), least clearly so on ResNet-56, where the
   intervals overlap. Data-aware: yes.
2. *In which norm should a layer be fitted?* Before recovery the fit in the norm of the inputs does less harm than that
   in the weight norm at the same form and rank: in single layers by a fifth to seven tenths (on ResNet-56, .58, the
   interval reaches 1), in whole networks by a quarter on stories260K, two fifths on ResNet-20, two thirds on
   ResNet-56 and seven tenths on MobileNetV2. The diagonal of the inputs gives less: at most half, in whole networks of
   MobileNetV2 a third, on stories260K next to nothing. Where mean and variance of each channel are given back, part of
   the lead in single layers goes (ResNet-20, .28 to .63) or all of it (ResNet-56). In whole networks ResNet-20 keeps
   it (.52 over ten plans); the few plans of ResNet-56 and MobileNetV2 (five and four) show none for certain.
3. *Of two layers, which bears a cut better?* It depends. The error in the norm of the inputs ranks candidates of all
   layers better than the weight error does on the ResNets (.83 and .75 against .58 and .62), not on stories260K, and
   on MobileNetV2 both fail (.28 and .06; `curvature` .67). A relative error of a tenth means different things at
   different layers. One measured sensitivity for each layer (`measured`) ranks them at .89 to .98, but on ResNet-56 at
   .67 (`curvature` .94): most layers there do next to no harm, divergences mostly below 1e-3, and on the 25 images of
   each batch that a sensitivity is measured on that of some came out up to tens of times too high.

So a study that compares layers of one network under one kind of fit can find that data do not help, and one that
compares fits, or candidates of a layer, that they do, without either being wrong.""",
    "## What was measured",
    """Every form (`svd`, `cp` for kernels, `group_svd/4`) at several shares of a layer's parameters, fitted in each of
four norms at the same rank; put in alone, and in random plans that keep from a tenth to most of the parameters of
the layers they touch. Damage is judged on images and stories that nothing was fitted to, never on the test split.
Recovery of a single layer matches mean and variance of its output channels; that of a network is `statistics`.
stories260K has neither biases nor batch norms, so there nothing can be given back. Errors are relative to the
energy of the layer's output in the same norm, on held-out inputs, uncentred where the bias does not move;
`curvature` is in nats; `measured` is the relative output error times divergence per error of one probe of the layer
(its `svd` at a tenth of the parameters, on held-out calibration samples; here not shrunk). A damage of a plan is
the sum over its layers.

[SIZES]

Figures are rank correlations (Spearman) with the measured divergence from the original network, and in brackets
their 95 % interval over 1,000 draws of the candidates with replacement. Candidates of one layer depend on each
other, so the intervals are on the narrow side. The highest of a line is bold, however small its lead.""",
    "## Single layers",
    """Within a layer: the mean over layers of the correlation among its candidates.

[WITHIN]

All candidates of all layers together:

[LAYERS]""",
    "## Whole networks",
    """Summed damage of random plans, all four fits of each together.

[NETWORKS]

The plans of MobileNetV2 touch a fiftieth to three tenths of its layers and keep 30 to 95 % of their parameters: it
bears less than the others, and most of them still break it (a quarter are below 2.6 nats). There the error of the
weights says next to nothing about a network (.22), that of the outputs much more (.61, with curvature .79).

![Predicted and measured damage of whole networks](which-norm.svg)

The same by other figures, before recovery: linear correlation of logarithms, rise of the loss, points of accuracy
lost (of stories260K the share of tokens predicted first).

[OTHERS]""",
    "## In which norm to fit",
    """Divergence after a fit in another norm over that after a fit in the weight norm, same form and rank (or plan):
geometric mean with its interval, and the share of pairs in which it is smaller. Below 1 the other norm is better.

[FITS]""",
    "## What follows for the defaults",
    """- Fits stay in the norm of the `inputs`. `curvature` fits are as good or slightly better, for a backward pass.
- The choice among forms and ranks of a layer goes by the held-out error in that norm.
- Between layers errors are weighed by a measured sensitivity, shrunk by half towards equal ones ([how it
  works](how-it-works.md#spending-the-budget) has that comparison).
- Sums of single-layer damages rank whole plans at .61 to .94 before recovery, and on the ResNets no better when layers
  are weighed by sensitivities as they are (ResNet-20: .80 with `inputs`, .76 with `measured`; ResNet-56: .79 and .67):
  what is missing is how errors add up.""",
    "## Limits",
    """Few networks, one seed, 20 steps per fit, small samples (the command is made to take minutes): one of some layers
is replaced alone, and plans are drawn at random where an allocator would choose good ones. Of MobileNetV2 six
layers and sixteen plans were measured, which took 41 minutes on a busy machine; of ResNet-56 seven layers and
twenty plans, five of them recovered, in 28. What a recovery by `refit`, which fits layers again, leaves of the
differences is not measured. Recovery by training is not measured here. `kronecker`, trains and stacks are left
out.

Provenance:

[PROVENANCE]""",
)
