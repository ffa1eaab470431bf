import { useCallback, useEffect, useState } from 'react';
import { getNotice, getProducts, getRecent, getReport, watchServers } from './api.js';
import { count, put } from './basket.js';
import { Mark, Ship } from './art.jsx';
import { Basket } from './Basket.jsx';
import { Catalogue } from './Catalogue.jsx';
import { Order } from './Order.jsx';
import { Ledger } from './Ledger.jsx';
import { Crew } from './Crew.jsx';

export function App() {
  const [products, setProducts] = useState(null);
  const [trouble, setTrouble] = useState('');
  const [notice, setNotice] = useState('');
  const [basket, setBasket] = useState({});
  const [order, setOrder] = useState(null);
  const [recent, setRecent] = useState([]);
  const [report, setReport] = useState(null);
  const [servers, setServers] = useState({});

  useEffect(() => watchServers(setServers), []);

  const refresh = useCallback(async () => {
    const [goods, orders, last, text] = await Promise.allSettled([getProducts(), getRecent(), getReport(), getNotice()]);
    if (goods.status === 'fulfilled') setProducts(goods.value);
    setTrouble(goods.status === 'rejected' ? goods.reason.message : '');
    if (orders.status === 'fulfilled') setRecent(orders.value);
    if (last.status === 'fulfilled') setReport(last.value);
    if (text.status === 'fulfilled') setNotice(text.value);
  }, []);

  useEffect(() => {
    refresh();
    // Stock and orders change under other hands too; a page nobody looks at asks for nothing.
    const timer = setInterval(() => document.hidden || refresh(), 10_000);
    return () => clearInterval(timer);
  }, [refresh]);

  const choose = (product, quantity) => setBasket((old) => put(old, product, quantity));
  const placed = (fresh) => {
    setBasket({});
    setOrder(fresh);
    refresh();
  };

  return (
    <>
      <a className="skip" href="#catalogue">
        Skip to the catalogue
      </a>
      {notice && <p className="notice">{notice}</p>}
      <header className="top">
        <div className="wide">
          <a className="brand" href="/" aria-label="Plimsoll Chandlery, home">
            <Mark />
            <span>
              Plimsoll <b>Chandlery</b>
            </span>
          </a>
          <a className="to-basket" href="#basket">
            Basket <span className="bubble">{count(basket)}</span>
          </a>
        </div>
      </header>
      <section className="hero">
        <div className="wide">
          <p className="over">Est. 1876</p>
          <h1>Everything a small crew needs to stay afloat.</h1>
          <p>Sound goods, honest stock, loaded up to the line and never past it.</p>
        </div>
        <div className="wide afloat">
          <Ship />
        </div>
        <svg className="waves" viewBox="0 0 1200 60" preserveAspectRatio="none" aria-hidden="true">
          <path d="M0 30c100-24 200-24 300 0s200 24 300 0 200-24 300 0 200 24 300 0v30H0z" />
        </svg>
      </section>
      <div className="wide layout">
        <main id="catalogue" tabIndex={-1}>
          {order && <Order id={order.id} first={order} onSettled={refresh} onClose={() => setOrder(null)} />}
          <Catalogue products={products} trouble={trouble} basket={basket} onChoose={choose} onRetry={refresh} />
          <Ledger recent={recent} report={report} onOpen={setOrder} />
        </main>
        <Basket products={products ?? []} basket={basket} onChoose={choose} onPlaced={placed} />
      </div>
      <Crew servers={servers} />
    </>
  );
}
