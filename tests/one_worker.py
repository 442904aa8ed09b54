"""One of several processes, by itself in this one: it does its share and adds up nothing."""

import torch

from metagdpo.training.parallel import shares


class Worker:
    """Stands in for `training.parallel.Workers`; with the others' shares added by the test, it is all of them."""

    device = torch.device("cpu")
    main = True

    def __init__(self, rank=0, n=1, *, sharded=False):
        self.rank, self.n, self.sharded = rank, n, sharded
        self.share = lambda costs: shares(costs, n)[rank]

    def shard(self, _scorer):
        pass

    def add_gradients(self, learning):
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def add_up(self, _tensors):
        pass

    def sum(self, values):
        return dict(values)

    def most(self, value):
        return value
