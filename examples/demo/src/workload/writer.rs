//! One writer: it takes orders, moves them on and clears them away, signs customers up, restocks
//! shelves, and now and then changes its mind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::{Client, Statement};

use super::transaction::{Change, Open, described};
use crate::live::Shared;
use crate::shop::{Op, Row, Table};

const PRODUCTS: u32 = 40;

/// Live orders and customers of a writer: older ones are cleared away, so that the shop stays small
/// however long it is open.
const MAX_ORDERS: usize = 250;
const MAX_CUSTOMERS: usize = 200;

/// Products restocked in one transaction.
const RESTOCKED: u32 = 12;

const NAMES: [&str; 8] = ["Ada", "Bela", "Chidi", "Dana", "Emil", "Fatou", "Goran", "Hana"];
const CITIES: [&str; 6] = ["Accra", "Bergen", "Cusco", "Delhi", "Evora", "Fukuoka"];
const COUPONS: [&str; 3] = ["SPRING", "WELCOME", "THANKS"];
const GOODS: [&str; 8] = ["tea", "rice", "soap", "lamp", "rope", "salt", "ink", "wool"];
const COLOURS: [&str; 5] = ["black", "green", "white", "red", "blue"];

/// What an order goes through.
const STATUSES: [&str; 4] = ["placed", "paid", "packed", "sent"];

/// Puts the products on the shelves; returns their prices in cents, by id from 1 on.
pub(super) fn stock(client: &mut Client, shared: &Shared) -> Result<Vec<i64>, String> {
    let insert = "(name, price, stock) VALUES ($1, $2::bigint::numeric / 100, 500)";
    let insert = Change::prepare(client, Table::Products, Op::Insert, insert)?;
    let prices: Vec<i64> = (0..PRODUCTS).map(|n| i64::from(195 + 137 * n % 4000)).collect();
    let mut fill = || {
        let mut open = Open::begin(client)?;
        for (n, price) in prices.iter().enumerate() {
            let name = format!("{} {}", COLOURS[n % COLOURS.len()], GOODS[n % GOODS.len()]);
            open.change(&insert, &[&name, price])?;
        }
        open.commit(shared)
    };
    fill().map_err(|error| described(&error))?;
    Ok(prices)
}

struct Order {
    id: i64,
    lines: i32,
    /// Its place in [`STATUSES`].
    status: usize,
}

/// The statements of a writer.
struct Statements {
    sign_up: Change,
    move_away: Change,
    close_account: Change,
    place: Change,
    place_with_coupon: Option<Change>,
    add_line: Change,
    take: Change,
    set_status: Change,
    set_quantity: Change,
    clear_lines: Change,
    clear: Change,
    lock_products: Statement,
    restock: Change,
}

impl Statements {
    fn prepare(client: &mut Client) -> Result<Self, String> {
        use Op::{Delete, Insert, Update};
        use Table::{Customers, OrderItems, Orders, Products};
        let mut prepare = |table, op, rest| Change::prepare(client, table, op, rest);
        Ok(Self {
            sign_up: prepare(Customers, Insert, "(name, city, news) VALUES ($1, $2, $3)")?,
            move_away: prepare(
                Customers,
                Update,
                "SET city = $2, version = version + 1 WHERE id = $1",
            )?,
            close_account: prepare(Customers, Delete, "WHERE id = $1")?,
            place: prepare(
                Orders,
                Insert,
                "(customer_id, total) VALUES ($1, $2::bigint::numeric / 100)",
            )?,
            place_with_coupon: None,
            add_line: prepare(
                OrderItems,
                Insert,
                "(order_id, line, product_id, quantity, price) \
                 VALUES ($1, $2, $3, $4, $5::bigint::numeric / 100)",
            )?,
            take: prepare(
                Products,
                Update,
                "SET stock = stock - $2, version = version + 1 WHERE id = $1",
            )?,
            set_status: prepare(
                Orders,
                Update,
                "SET status = $2, version = version + 1 WHERE id = $1",
            )?,
            set_quantity: prepare(
                OrderItems,
                Update,
                "SET quantity = $3, version = version + 1 WHERE order_id = $1 AND line = $2",
            )?,
            clear_lines: prepare(OrderItems, Delete, "WHERE order_id = $1")?,
            clear: prepare(Orders, Delete, "WHERE id = $1")?,
            restock: prepare(
                Products,
                Update,
                "SET stock = 500, version = version + 1 WHERE id = ANY($1)",
            )?,
            lock_products: client
                .prepare("SELECT FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE")
                .map_err(|error| described(&error))?,
        })
    }
}

/// A writer with its session.
pub(super) struct Writer {
    client: Client,
    statements: Statements,
    random: Random,
    prices: Vec<i64>,
    customers: VecDeque<i64>,
    orders: VecDeque<Order>,
    shared: Arc<Shared>,
    migrated: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(
        mut client: Client,
        number: u64,
        prices: Vec<i64>,
        shared: Arc<Shared>,
        migrated: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let statements = Statements::prepare(&mut client)?;
        let (customers, orders) = (VecDeque::new(), VecDeque::new());
        let random = Random(number);
        Ok(Self { client, statements, random, prices, customers, orders, shared, migrated })
    }

    /// Does one transaction.
    pub(super) fn work(&mut self) -> Result<(), String> {
        self.follow_migration()?;
        let done = if self.customers.is_empty() {
            self.sign_up()
        } else if self.orders.len() > MAX_ORDERS {
            self.clear_away()
        } else if self.customers.len() > MAX_CUSTOMERS {
            self.close_account()
        } else {
            match self.random.below(100) {
                0..40 => self.place(Ending::Commit),
                40..43 => self.place(Ending::RollBack),
                43..46 => self.place(Ending::SecondThoughts),
                46..80 => self.advance(),
                80..87 => self.set_quantity(),
                87..92 => self.sign_up(),
                92..96 => self.move_away(),
                _ => self.restock(),
            }
        };
        done.map_err(|error| described(&error))
    }

    /// Uses the new column as soon as it is there, as the next release of an application would.
    fn follow_migration(&mut self) -> Result<(), String> {
        if self.statements.place_with_coupon.is_none() && self.migrated.load(Ordering::Acquire) {
            let rest = "(customer_id, total, coupon) VALUES ($1, $2::bigint::numeric / 100, $3)";
            let place = Change::prepare(&mut self.client, Table::Orders, Op::Insert, rest)?;
            self.statements.place_with_coupon = Some(place);
        }
        Ok(())
    }

    fn sign_up(&mut self) -> Result<(), postgres::Error> {
        let name = *self.random.one_of(&NAMES);
        let city = *self.random.one_of(&CITIES);
        let news = self.random.below(2) == 0;
        let mut open = Open::begin(&mut self.client)?;
        let rows = open.change(&self.statements.sign_up, &[&name, &city, &news])?;
        open.commit(&self.shared)?;
        self.customers.extend(rows.iter().filter_map(id));
        Ok(())
    }

    fn move_away(&mut self) -> Result<(), postgres::Error> {
        let city = *self.random.one_of(&CITIES);
        let customer = self.customer();
        let mut open = Open::begin(&mut self.client)?;
        open.change(&self.statements.move_away, &[&customer, &city])?;
        open.commit(&self.shared)
    }

    fn close_account(&mut self) -> Result<(), postgres::Error> {
        let Some(customer) = self.customers.pop_front() else { return Ok(()) };
        let mut open = Open::begin(&mut self.client)?;
        open.change(&self.statements.close_account, &[&customer])?;
        open.commit(&self.shared)
    }

    /// Three tables in one transaction: the order, its lines, and the shelves they come from.
    fn place(&mut self, ending: Ending) -> Result<(), postgres::Error> {
        let customer = self.customer();
        let basket = self.basket();
        let total: i64 = basket.iter().map(|(product, count)| self.price(*product) * count).sum();
        let coupon = *self.random.one_of(&COUPONS);
        let coupon = (self.random.below(3) == 0).then_some(coupon);
        let mut open = Open::begin(&mut self.client)?;
        let rows = match (&self.statements.place_with_coupon, coupon) {
            (Some(place), Some(coupon)) => open.change(place, &[&customer, &total, &coupon])?,
            _ => open.change(&self.statements.place, &[&customer, &total])?,
        };
        let Some(order) = rows.first().and_then(id) else { return Ok(()) };
        let mut lines = 0;
        for (product, count) in &basket {
            lines += 1;
            let (price, count) = (self.prices[index(*product)], i32::try_from(*count).unwrap_or(1));
            let line: [&(dyn postgres::types::ToSql + Sync); 5] =
                [&order, &lines, product, &count, &price];
            if ending == Ending::SecondThoughts {
                open.change_in_vain(&self.statements.add_line, &line)?;
            }
            open.change(&self.statements.add_line, &line)?;
            open.change(&self.statements.take, &[product, &count])?;
        }
        if ending == Ending::RollBack {
            return open.roll_back(&self.shared);
        }
        open.commit(&self.shared)?;
        self.orders.push_back(Order { id: order, lines, status: 0 });
        Ok(())
    }

    fn advance(&mut self) -> Result<(), postgres::Error> {
        let Some(order) = self.random.one_of_mut(&mut self.orders) else { return Ok(()) };
        order.status = (order.status + 1) % STATUSES.len();
        let status = STATUSES[order.status];
        let mut open = Open::begin(&mut self.client)?;
        open.change(&self.statements.set_status, &[&order.id, &status])?;
        open.commit(&self.shared)
    }

    fn set_quantity(&mut self) -> Result<(), postgres::Error> {
        let quantity = 1 + i32::try_from(self.random.number(9)).unwrap_or(0);
        let Some(order) = self.random.one_of_mut(&mut self.orders) else { return Ok(()) };
        let mut open = Open::begin(&mut self.client)?;
        open.change(&self.statements.set_quantity, &[&order.id, &order.lines, &quantity])?;
        open.commit(&self.shared)
    }

    fn clear_away(&mut self) -> Result<(), postgres::Error> {
        let Some(order) = self.orders.pop_front() else { return Ok(()) };
        let mut open = Open::begin(&mut self.client)?;
        open.change(&self.statements.clear_lines, &[&order.id])?;
        open.change(&self.statements.clear, &[&order.id])?;
        open.commit(&self.shared)
    }

    fn restock(&mut self) -> Result<(), postgres::Error> {
        let first = 1 + self.random.number(PRODUCTS - RESTOCKED);
        let products: Vec<i64> = (first..first + i64::from(RESTOCKED)).collect();
        let mut open = Open::begin(&mut self.client)?;
        open.run(&self.statements.lock_products, &[&products])?;
        open.change(&self.statements.restock, &[&products])?;
        open.commit(&self.shared)
    }

    fn customer(&mut self) -> i64 {
        let place = self.random.below(self.customers.len().max(1));
        self.customers.get(place).copied().unwrap_or(1)
    }

    /// One to four products, each once, in the order of their ids, and how many of each.
    fn basket(&mut self) -> Vec<(i64, i64)> {
        let size = 1 + self.random.below(4);
        let mut products: Vec<i64> = (0..size).map(|_| 1 + self.random.number(PRODUCTS)).collect();
        products.sort_unstable();
        products.dedup();
        products.into_iter().map(|product| (product, 1 + self.random.number(5))).collect()
    }

    fn price(&self, product: i64) -> i64 {
        self.prices[index(product)]
    }
}

/// How the taking of an order ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    RollBack,
    /// Each line is written, taken back to a savepoint and written again.
    SecondThoughts,
}

fn id(row: &Row) -> Option<i64> {
    row.number("id")
}

fn index(product: i64) -> usize {
    usize::try_from(product - 1).unwrap_or(0)
}

/// SplitMix64: enough for a shop, and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn number(&mut self, bound: u32) -> i64 {
        i64::try_from(self.next() % u64::from(bound)).unwrap_or(0)
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn one_of_mut<'a, T>(&mut self, of: &'a mut VecDeque<T>) -> Option<&'a mut T> {
        let place = self.below(of.len().max(1));
        of.get_mut(place)
    }
}
