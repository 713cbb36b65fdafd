"""What the tools of the recorded trajectories do to their worlds, as their authors would declare.

From the simulators' own behaviour: tau-bench (sierra-research) and BFCL v4 multi-turn (gorilla).
Tags may name arguments in braces. What is in no table is unknown, as everywhere: it is run each
time, and it may have changed anything.
"""

from collections.abc import Mapping

from paceline.call import UNKNOWN, Effect, EffectKind

__all__ = ["BFCL", "TAU_AIRLINE", "Effects", "effect_of"]

Effects = Mapping[str, Effect]


def effect_of(effects: Effects, name: str, arguments: Mapping[str, object]) -> Effect:
    """The effect of one call."""
    declared = effects.get(name, UNKNOWN)
    return Effect(declared.kind, tuple(tag.format_map(arguments) for tag in declared.tags))


def _table(*rows: tuple[EffectKind, str, str]) -> dict[str, Effect]:
    """Effects by name, from kind, names and tags, both separated by blanks."""
    return {
        name: Effect(kind, tuple(tags.split()))
        for kind, names, tags in rows
        for name in names.split()
    }


_P, _R, _W = EffectKind.PURE, EffectKind.READ, EffectKind.WRITE

TAU_AIRLINE: Effects = _table(
    (_P, "calculate list_all_airports", ""),
    (_R, "get_user_details", "user:{user_id} users"),
    (_R, "get_reservation_details", "reservation:{reservation_id} bookings"),
    (_R, "search_direct_flight search_onestop_flight", "flights"),
    # Payments and refunds change users that the arguments do not name.
    (_W, "cancel_reservation", "reservation:{reservation_id} users"),
    (_W, "update_reservation_baggages", "reservation:{reservation_id} users"),
    (_W, "update_reservation_flights", "reservation:{reservation_id} users flights"),
    (_W, "update_reservation_passengers", "reservation:{reservation_id}"),
    (_W, "book_reservation", "user:{user_id} bookings flights"),
    (_W, "send_certificate", "user:{user_id}"),
)
"""`think` and `transfer_to_human_agents` are no part of the world."""

BFCL: Effects = _table(
    (_P, "logarithm mean standard_deviation liter_to_gallon gallon_to_liter", ""),
    (_P, "get_zipcode_based_on_city compute_exchange_rate", ""),
    (_P, "get_nearest_airport_by_city list_all_airports find_nearest_tire_shop", ""),
    (_R, "cat diff du find grep ls sort tail wc", "files"),
    (_W, "cd cp echo mkdir mv rm rmdir touch", "files"),
    (_R, "get_user_id view_messages_sent", "messages"),
    (_W, "add_contact delete_message message_login send_message", "messages"),
    (_W, "authenticate_twitter comment mention post_tweet retweet", "tweets"),
    (_R, "get_ticket", "tickets"),
    (_W, "close_ticket create_ticket edit_ticket resolve_ticket ticket_login", "tickets"),
    (_R, "get_available_stocks get_current_time get_stock_info", "market"),
    (_R, "get_account_info", "account login"),
    (_R, "get_order_details", "orders login"),
    (_R, "get_watchlist", "watchlist login"),
    (_W, "add_to_watchlist remove_stock_from_watchlist", "watchlist"),
    (_W, "cancel_order place_order", "orders account"),
    (_W, "fund_account withdraw_funds", "account"),
    (_W, "trading_logout", "login"),
    (_R, "get_flight_cost", "flights"),
    (_R, "get_credit_card_balance", "cards traveller"),
    (_R, "retrieve_invoice", "bookings traveller"),
    (_R, "verify_traveler_information", "traveller"),
    (_W, "authenticate_travel set_budget_limit", "traveller"),
    (_W, "book_flight cancel_booking purchase_insurance", "bookings cards"),
    (_W, "register_credit_card", "cards"),
    (_W, "contact_customer_support", "support"),
    (_R, "estimate_distance", "map"),
    (_R, "check_tire_pressure", "tires"),
    (_R, "displayCarStatus estimate_drive_feasibility_by_mileage", "car"),
    (_W, "activateParkingBrake fillFuelTank lockDoors pressBrakePedal", "car"),
    (_W, "setCruiseControl setHeadlights set_navigation startEngine", "car"),
)
"""Tools that draw random numbers, such as the outside temperature, are in no table."""
