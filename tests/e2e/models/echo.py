"""Answers what it was sent, at once."""


class Model:
    def predict(self, inputs):
        return {"y": inputs["x"]}
