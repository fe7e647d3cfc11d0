"""How near a student is to its teacher: states (:mod:`cka`, :mod:`linear`) and predictions (:mod:`agreement`)."""
