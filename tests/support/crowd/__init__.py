"""An app at work in processes of its own, on servers of its own, all of which may be killed.

`support.traffic` is the same app in steps that a seed orders. Here nothing orders them: processes
and threads run as they come, and a store is gone for as long as it takes to start again.
"""

from support.crowd.crowd import Crowd, Look, crowd_of

__all__ = ["Crowd", "Look", "crowd_of"]
