"""Comparing two computations of one network, with one definition of relative error, margin and grid position.

relative.py      relative errors and margins
selections.py    the tokens that each selection keeps, read from outputs
tolerance.py     the differences that rounding may cause, by precision
agreement.py     outputs of two artefacts, image by image
verification.py  two artefacts opened, run on the same images and compared: `evodeploy.verify`
margins.py       how clear the selections of one artefact are: `evodeploy.margins`
parity.py        an engine's outputs against the network's in float64
export.py        an exported file against its network
"""
