"""Can't be loaded: says why."""


class Model:
    def load(self, _path):
        raise RuntimeError("the weights file is corrupt")

    def predict(self, inputs):
        return inputs
