"""How far two computations of one network agree: outputs, selections, artefacts; one error, one margin."""
