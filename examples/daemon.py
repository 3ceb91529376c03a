"""A complete daemon. It may die at any instant; starting it again is all there is to recovery."""
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, StateStore, slot_to_ask
from pil_research.types import InputError


def daemon(desk, folder):
    """`desk` is yours: now; wait, which gives the time or None to end; snapshot; send; note.

    `send` must ignore an id that it was given before.
    """
    integrator = PortfolioIntegrator.from_approval(folder / "approval.json", now=desk.now())
    again = True
    with StateStore(folder / "store.sqlite") as store:  # in use, damaged, rolled back: no daemon
        session = LiveSession(store, integrator, kill_file=folder / "KILL")
        while now := desk.wait():
            asked = slot_to_ask(session, now, again=again)
            if asked is None:  # nothing due, nothing left unsent by the last process, no kill
                continue
            try:  # the decision is on disk before it comes back
                again, decision = False, session.on_slot(desk.snapshot(*asked, now))
            except InputError as error:  # the question was wrong: nothing decided, so hold
                desk.note(error)
                continue
            desk.send(decision.id, decision.orders)
            desk.note(decision)
