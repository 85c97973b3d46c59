"""The use cases, one in each module, as flows, which serve sync and async alike (:mod:`.flow`)."""
