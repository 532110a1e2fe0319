"""Train a network step by step: what every recovery level with gradients shares.

`loop` is the training itself, `samples` draws batches, `objectives` says what is minimised, `augment` varies images,
`average` and `schedule` shape the descent, `state` is what a checkpoint holds, `contracted` makes factorised layers
quick to train, `ranks` shares the work among processes.
"""
