"""From a picture of a CAD part to CadQuery code that rebuilds it.

The package sits between `metrics` (which runs and scores programs and knows nothing of models) and
the recipes at the top of the repository. Import from its rooms (`from image2cad.cad import parse`);
nothing is re-exported here, so that `import image2cad` stays free of torch.
"""

import logging

# At import, bitsandbytes says in words of an error that an optional package is not there.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
