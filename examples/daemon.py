"""A complete daemon. It may die at any instant; starting it again is all there is to recovery."""
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, StateStore, read_kills
from pil_research.types import InputError


def daemon(desk, folder):
    """`desk` is yours: now; wait, which gives the time or None to end; snapshot; send; note.

    `send` must ignore an id that it was given before.
    """
    integrator = PortfolioIntegrator.from_approval(folder / "approval.json", now=desk.now())
    again, kill = True, folder / "KILL"
    with StateStore(folder / "store.sqlite") as store:  # in use, damaged, rolled back: no daemon
        session = LiveSession(store, integrator, kill_file=kill)
        while now := desk.wait():
            day = now.tz_convert(session.calendar.zone).tz_localize(None).normalize()
            if not session.calendar.is_session(day) or now >= session.calendar.hours(day)[1]:
                continue
            slot, memory = session.due(now, day).slot, session.memory
            done = memory.done if memory.session == day.date().isoformat() else ()
            ask = slot.name if slot else done[-1] if done and (again or read_kills(kill)) else None
            if ask is None:  # nothing due, nothing left unsent by the last process, no kill
                continue
            try:  # the decision is on disk before it comes back
                again, decision = False, session.on_slot(desk.snapshot(day, ask, now))
            except InputError as error:  # the question was wrong: nothing decided, so hold
                desk.note(error)
                continue
            desk.send(decision.id, decision.orders)
            desk.note(decision)
