"""How far two computations of one network agree: one relative error, one margin, one mapping from grid to token.

relative.py      errors and margins, as shares of what they are measured against
selections.py    the tokens that each selection keeps, read from outputs
tolerance.py     what rounding may change, by precision
agreement.py     outputs of two artefacts, image by image
verification.py  two artefacts opened, run on the same images and compared: `evodeploy.verify`
margins.py       how clear the selections of one artefact are: `evodeploy.margins`
parity.py        an engine's outputs against the network's in float64
export.py        an exported file against its network
"""
