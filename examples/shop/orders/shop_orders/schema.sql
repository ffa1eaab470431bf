-- The shop's tables and goods. May be applied again at any time: it adds what is missing and changes nothing else.

create schema if not exists catalogue;
create schema if not exists orders;

create table if not exists catalogue.products (
    id          text primary key,
    name        text not null,
    description text not null,
    art         text not null,
    price_cents integer not null check (price_cents > 0),
    stock       integer not null check (stock >= 0),
    capacity    integer not null check (capacity > 0),
    position    integer not null
);

-- What has been set aside for an order: one row an order, so that the same order never takes stock twice.
create table if not exists catalogue.reservations (
    order_id   uuid primary key,
    items      jsonb not null,
    made_at    timestamptz not null default now()
);

create table if not exists orders.orders (
    id              uuid primary key default gen_random_uuid(),
    number          bigint generated always as identity (start with 1001) unique,
    idempotency_key text not null unique,
    customer        text not null,
    method          text not null,
    items           jsonb not null,
    total_cents     bigint not null check (total_cents > 0),
    status          text not null default 'placed' check (status in ('placed', 'paid', 'declined', 'refused')),
    reason          text,
    placed_at       timestamptz not null default now(),
    settled_at      timestamptz
);
create index if not exists orders_by_time on orders.orders (placed_at desc);
create index if not exists orders_waiting on orders.orders (placed_at) where status = 'placed';

-- The way of an order through the services: each step once.
create table if not exists orders.steps (
    order_id uuid not null references orders.orders (id),
    step     text not null,
    service  text not null,
    host     text not null,
    runtime  text not null,
    at       timestamptz not null default clock_timestamp(),
    primary key (order_id, step)
);

create table if not exists orders.reports (
    written_at  timestamptz primary key default now(),
    placed      integer not null,
    paid        integer not null,
    turned_away integer not null,
    taken_cents bigint not null,
    best_seller text
);

insert into catalogue.products (position, id, art, price_cents, stock, capacity, name, description) values
    ( 1, 'canvas-plimsolls', 'plimsolls',  3900, 64, 80, 'Canvas plimsolls', 'Rubber soles with the famous line: do not get your feet wet above it.'),
    ( 2, 'brass-lantern',    'lantern',    6400, 18, 40, 'Brass lantern', 'Burns through the night watch and the morning stand-up.'),
    ( 3, 'enamel-mug',       'mug',        1250, 96, 120, 'Enamel mug', 'Holds coffee, tea or rum. Survives being dropped on a deck.'),
    ( 4, 'signal-flags',     'flags',      2800, 33, 60, 'Signal flags', 'Five flags for what a small crew has to say most often.'),
    ( 5, 'manila-rope',      'rope',       2400, 52, 60, 'Manila rope', 'Twenty metres, three strands, no dependencies.'),
    ( 6, 'pocket-compass',   'compass',    4500, 27, 50, 'Pocket compass', 'Points north without asking another team.'),
    ( 7, 'ships-bell',       'bell',       8500, 12, 20, 'Ship''s bell', 'Rings when something is really wrong, and only then.'),
    ( 8, 'oilskin-jacket',   'jacket',    12900,  9, 30, 'Oilskin jacket', 'Keeps out rain, spray and scope creep.'),
    ( 9, 'life-ring',        'ring',       5800, 24, 24, 'Life ring', 'One copy each on port and starboard. Tested every night.'),
    (10, 'spyglass',         'spyglass',  14900,  4, 12, 'Spyglass', 'Sees trouble three ticks before it arrives.'),
    (11, 'ships-biscuits',   'biscuits',    980, 140, 160, 'Ship''s biscuits', 'A tin of forty. Keeps for years, like old services.'),
    (12, 'paperweight-anchor', 'anchor',   2100, 41, 60, 'Paperweight anchor', 'Cast iron. Stops things on your desk from drifting.')
on conflict (id) do nothing;
